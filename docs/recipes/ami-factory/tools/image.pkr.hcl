# The image, as packer bakes it. It lies in the image of the tool: whoever uploads the application
# chooses neither the base, nor what is done to it. The variables come from the environment of the
# target (PKR_VAR_NAME) and from `image-factory bake`.

variable "version" { type = string }
variable "run" { type = string }
variable "region" { type = string }
variable "subnet" { type = string }
variable "security_group" { type = string }
variable "instance_profile" { type = string }
variable "kms_key" { type = string }

# Debian's images, of Debian's account on AWS. Nobody else's image becomes the base.
variable "base_name" {
  type    = string
  default = "debian-11-amd64-*"
}
variable "base_owner" {
  type    = string
  default = "136693071363"
}

# The packages of the agents, as *.deb: amazon-ssm-agent and amazon-cloudwatch-agent.
variable "agents" {
  type    = string
  default = "/opt/image-factory/agents"
}

# What only a trial changes. On AWS, packer makes a key for one build, and reaches the instance by
# Session Manager: no port is open, and the subnet is private.
variable "endpoint" {
  type    = string
  default = null
}
variable "ssh_interface" {
  type    = string
  default = "session_manager"
}
variable "ssh_host" {
  type    = string
  default = null
}
variable "ssh_port" {
  type    = number
  default = 22
}
variable "ssh_username" {
  type    = string
  default = "admin"
}
variable "ssh_private_key_file" {
  type    = string
  default = null
}

source "amazon-ebs" "shop" {
  region              = var.region
  custom_endpoint_ec2 = var.endpoint
  ami_name            = "shop-${var.version}-${var.run}"
  instance_type       = "t3.small"

  source_ami_filter {
    filters = {
      name                = var.base_name
      virtualization-type = "hvm"
    }
    owners      = [var.base_owner]
    most_recent = true
  }

  subnet_id            = var.subnet
  security_group_id    = var.security_group
  iam_instance_profile = var.instance_profile
  user_data_file       = "${path.root}/base-agent.sh"
  shutdown_behavior    = "terminate"

  # An image of an encrypted disk is encrypted with the same key.
  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 8
    volume_type           = "gp3"
    iops                  = 3000
    throughput            = 125
    encrypted             = true
    kms_key_id            = var.kms_key
    delete_on_termination = true
  }

  communicator         = "ssh"
  ssh_interface        = var.ssh_interface
  ssh_host             = var.ssh_host
  ssh_port             = var.ssh_port
  ssh_username         = var.ssh_username
  ssh_private_key_file = var.ssh_private_key_file

  # `purpose` is what the role may start and end. `run` is the deployment.
  run_tags = {
    purpose = "image-bake"
    run     = var.run
    Name    = "bake shop ${var.version}"
  }
  run_volume_tags = {
    purpose = "image-bake"
    run     = var.run
  }

  # Nobody may start the image before it is `passed`.
  tags = {
    scan    = "pending"
    service = "shop"
    version = var.version
    run     = var.run
    base    = "{{ .SourceAMI }}"
  }
}

build {
  sources = ["source.amazon-ebs.shop"]

  provisioner "shell" {
    inline = ["rm -rf /tmp/factory", "mkdir -m 700 /tmp/factory"]
  }
  provisioner "file" {
    source      = "source/app" # the application, which CI has uploaded
    destination = "/tmp/factory"
  }
  provisioner "file" {
    source      = var.agents
    destination = "/tmp/factory"
  }
  provisioner "shell" {
    execute_command = "sudo sh -eu {{ .Path }}"
    scripts = [
      "${path.root}/1-update.sh",
      "${path.root}/2-install.sh",
      "${path.root}/3-harden.sh",
      "${path.root}/4-seal.sh",
    ]
  }
  provisioner "file" {
    direction   = "download"
    source      = "/usr/share/factory/inventory.txt"
    destination = "inventory.txt"
  }

  post-processor "manifest" {
    output = "manifest.json"
  }
}

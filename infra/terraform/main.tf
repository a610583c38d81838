# One of relay's CloudFormation templates as a Terraform module, for teams that apply everything
# with Terraform. The templates stay the norm: this module only hands them over. It was formatted
# and read by Terraform, and not applied on AWS so far.
#
#   module "foundation" {
#     source     = "…/infra/terraform"
#     providers  = { aws = aws.production }
#     name       = "relay"
#     template   = "…/infra/foundation.yaml"
#     bucket     = aws_s3_bucket.code.id
#     parameters = {
#       CiAccountIds = "111111111111"
#       CiRoleArns   = module.ci.outputs["CiRoleArn"]
#       CodeBucket   = aws_s3_bucket.code.id
#       CodeKey      = aws_s3_object.launcher.key
#     }
#   }

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "name" {
  description = "Name of the stack: relay-ci, relay, relay-network, or relay-SERVICE-ENVIRONMENT."
  type        = string
}

variable "template" {
  description = "The template: a file of infra/, or what `relay-admin target render --out` wrote."
  type        = string
}

variable "bucket" {
  description = "Bucket in the stack's account and region for the template, which may be too large for a request."
  type        = string
}

variable "parameters" {
  description = "The template's parameters. A list is written with commas."
  type        = map(string)
  default     = {}
}

# The key has the template's digest, so that a changed template is a changed stack.
resource "aws_s3_object" "template" {
  bucket       = var.bucket
  key          = "templates/${var.name}/${filesha256(var.template)}.yaml"
  source       = var.template
  content_type = "application/yaml"
}

data "aws_partition" "current" {}

resource "aws_cloudformation_stack" "this" {
  name         = var.name
  template_url = "https://${var.bucket}.s3.${data.aws_partition.current.dns_suffix}/${aws_s3_object.template.key}"
  parameters   = var.parameters
  capabilities = ["CAPABILITY_NAMED_IAM"]

  # CloudFormation keeps what exists when an update fails.
  on_failure = "ROLLBACK"

  timeouts {
    create = "60m"
    update = "60m"
    delete = "60m"
  }
}

output "outputs" {
  description = "The stack's outputs, by name."
  value       = aws_cloudformation_stack.this.outputs
}

terraform {
  required_version = ">= 1.10"

  backend "s3" {
    bucket         = "example-terraform-state"
    key            = "shop/production.tfstate"
    region         = "eu-west-1"
    encrypt        = true
    use_lockfile   = true
    use_path_style = true # for emulators; AWS takes both styles
  }
}

variable "release" {
  type    = string
  default = "1.0"
}

# What stands for a service: a resource of terraform itself, which needs no provider.
resource "terraform_data" "shop" {
  input = var.release
}

output "release" {
  value = terraform_data.shop.output
}

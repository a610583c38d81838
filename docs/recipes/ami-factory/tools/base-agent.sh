#!/bin/sh
# User data of the instance that packer bakes. Debian's image has no agent of Systems Manager, by
# which packer reaches it. The bucket is AWS's own, and is reached by the gateway endpoint of S3.
set -eu
token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
  http://169.254.169.254/latest/api/token)
region=$(curl -fsS -H "X-aws-ec2-metadata-token: $token" \
  http://169.254.169.254/latest/meta-data/placement/region)
curl -fsSo /tmp/agent.deb \
  "https://s3.$region.amazonaws.com/amazon-ssm-$region/latest/debian_amd64/amazon-ssm-agent.deb"
dpkg -i /tmp/agent.deb
shutdown -P +120 # the instance ends by itself, also if the factory dies

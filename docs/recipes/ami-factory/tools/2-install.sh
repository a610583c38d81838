#!/bin/sh
# Installs the agents and the application. The application comes from CI: its files are copied, and
# nothing of it runs here. It belongs to root, and runs as a user without rights.
set -eu
dpkg -i /tmp/factory/agents/*.deb > /dev/null
for agent in amazon-ssm-agent amazon-cloudwatch-agent; do
  dpkg -s "$agent" > /dev/null || {
    echo "The package $agent is missing; put it into the folder of the agents." >&2
    exit 1
  }
done

rm -rf /opt/shop
cp -R --no-dereference /tmp/factory/app /opt/shop
find /opt/shop -type l -delete
chown -R root:root /opt/shop
chmod -R u=rwX,go=rX /opt/shop
id shop > /dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin shop

# One image serves every environment: what differs is read from Parameter Store at the start.
cat > /etc/systemd/system/shop.service << 'UNIT'
[Unit]
Description=shop
After=network-online.target
Wants=network-online.target

[Service]
User=shop
ExecStart=/opt/shop/serve
Restart=on-failure
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
UNIT
systemctl --quiet enable shop

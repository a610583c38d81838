#!/bin/sh
# Removes what belongs to this build alone, records what is installed, and seals the files.
set -eu
apt-get -qq clean
rm -rf /tmp/factory /var/lib/apt/lists/* /root/.ssh /home/*/.ssh
rm -f /etc/ssh/ssh_host_* # each instance makes keys of its own
: > /etc/machine-id

mkdir -p /usr/share/factory /etc/aide /var/lib/aide
# shellcheck disable=SC2016 # the fields are dpkg's
dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\n' > /usr/share/factory/inventory.txt

# What aide compares later: programs, configuration and the application.
cat > /etc/aide/factory.conf << 'AIDE'
database_in=file:/var/lib/aide/aide.db
database_out=file:/var/lib/aide/aide.db
/boot p+u+g+sha256
/etc p+u+g+sha256
/opt p+u+g+sha256
/usr/bin p+u+g+sha256
/usr/sbin p+u+g+sha256
!/etc/machine-id$
!/etc/ssh/ssh_host_.*$
AIDE
aide --config=/etc/aide/factory.conf --init > /dev/null
cat > /etc/cron.d/factory-aide << 'CRON'
17 * * * * root aide --config=/etc/aide/factory.conf --check | logger -t aide -p auth.warning
CRON

# The user by whom packer came keeps no rights.
rm -f /etc/sudoers.d/90-cloud-init-users

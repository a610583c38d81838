#!/bin/sh
# Brings every package up to date, and installs what the image needs.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold upgrade > /dev/null
# Time, jobs, audit (who did what), integrity of files, logs and their rotation.
apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends \
  aide auditd cron logrotate ntp rsyslog > /dev/null

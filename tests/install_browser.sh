#!/usr/bin/env bash
# Puts a headless Chromium in place for the tests of the dashboard, where there is none and Debian's packages can be had.
set -u
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "installing chromium for the dashboard's tests"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1 && exit 0
fi
echo "no chromium: the dashboard's browser tests will be skipped; install chromium and chromium-driver to run them"

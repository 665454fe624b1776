#!/bin/bash
# Installs Cloudflare's client and runs check.mjs against the platform of CLOISTER_URL and CLOISTER_TOKEN.
set -euo pipefail
cd "$(dirname "$0")"
command -v npm >/dev/null || { echo "needs node and npm (Debian: nodejs npm)" >&2; exit 1; }
npm ci --no-audit --no-fund --silent
exec node check.mjs

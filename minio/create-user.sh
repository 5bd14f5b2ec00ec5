#!/bin/sh
# Makes Safelight's user and policy in MinIO, or brings them up to date, and has the bucket of photos tell the gateway
# what is written to it. Safe to run at any time and again.
# Wants mc's alias `storage` to be the administrator (MC_HOST_storage), and S3_ACCESS_KEY and S3_SECRET_KEY.
set -eu

policy=$(dirname "$0")/policy.json

mc admin policy create storage safelight-storage "$policy"
# From standard input, so that the secret stands in no process list.
printf '%s\n%s\n' "$S3_ACCESS_KEY" "$S3_SECRET_KEY" | mc admin user add storage

# `attach` fails where the policy is attached already. The image has no grep.
attached=$(mc admin policy entities storage --user "$S3_ACCESS_KEY" --json)
case $attached in
*safelight-storage*) ;;
*) mc admin policy attach storage safelight-storage --user "$S3_ACCESS_KEY" ;;
esac

# Target 1 is switched on by MinIO's environment. Photos that come by Safelight's doors need none of this.
mc mb --ignore-existing storage/photos
mc event add --ignore-existing storage/photos arn:minio:sqs::1:webhook --event put,delete ||
	echo "Bucket events are not set up: \`safelight setup bucket photos\` says why." >&2

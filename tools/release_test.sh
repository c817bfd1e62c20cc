#!/usr/bin/env bash
# The release of a commit is the same wherever, whenever and by whomever it is made; and each of its files is what it should be.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git clone --quiet . "$work/one"
git clone --quiet . "$work/another place"
make --no-print-directory -C "$work/one" release
(umask 077 && TZ=Asia/Tokyo LC_ALL=C.UTF-8 make --no-print-directory -C "$work/another place" release >/dev/null)
diff "$work/one/dist/release/SHA256SUMS" "$work/another place/dist/release/SHA256SUMS"

cd "$work/one/dist/release"
sha256sum --quiet --check SHA256SUMS
version=$(<"$work/one/VERSION")
tar --extract --gzip --file="plexus-$version-linux-amd64.tar.gz"
for program in plexus plexusd plexusctl kubectl-plexus; do
	"./plexus-$version-linux-amd64/$program" --version 2>&1 | grep --fixed-strings "$version"
done
grep --quiet "image: .*plexus:$version" install.yaml
for file in *.cdx.json; do
	grep --quiet '"bomFormat": "CycloneDX"' "$file"
done
tar --extract --file="plexus-$version-image.tar"
grep --quiet --recursive "\"org.opencontainers.image.version\":\"$version\"" blobs
tar --list --gzip --file="plexus-chart-$version.tgz" | grep --quiet '^plexus/crds/.*yaml$'
echo "release $version: made twice, equal"

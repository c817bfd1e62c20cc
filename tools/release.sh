#!/usr/bin/env bash
# Makes dist/release: the archives, image, manifests, chart and bills of materials of the release that VERSION names, and their checksums.
# The same commit gives the same bytes: what has a time has the commit's, and nothing has a path of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC

version=$(<VERSION)
image=${RELEASE_IMAGE:-docker.io/library/plexus:$version}
commit=$(git rev-parse HEAD)
time=$(git log -1 --format=%ct)
out=$PWD/dist/release
rm -rf "$out" bin/release
mkdir -p "$out"

# pack ARCHIVE FOLDER NAME...: names in a folder, as a compressed archive.
pack() {
	tar --create --dereference --sort=name --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
		--mtime="@$time" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w --directory="$2" "${@:3}" | gzip --no-name --best >"$1"
}

for arch in amd64 arm64; do
	folder=plexus-$version-linux-$arch
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -tags=grpcnotrace -trimpath -ldflags='-s -w' -o "bin/release/$folder/" ./cmd/...
	cp LICENSE README.md CHANGELOG.md "bin/release/$folder/"
	pack "$out/$folder.tar.gz" bin/release "$folder"
done

go build -modfile=tools/sbom/go.mod -trimpath -o bin/release/ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
for program in plexus plexusd plexusctl kubectl-plexus; do
	bin/release/cyclonedx-gomod bin -json -std -noserial -notimestamp -version "$version" -output "$out/$program-$version.cdx.json" \
		"bin/release/plexus-$version-linux-amd64/$program"
done

programs=()
for program in plexus plexusd plexusctl; do
	programs+=("$PWD/bin/release/plexus-$version-linux-{arch}/$program=/usr/bin/$program")
done
(cd e2e && go run ./cmd/image -o "$out/plexus-$version-image.tar" -ref "$image" -platforms linux/amd64,linux/arm64 -user 0:0 -entrypoint /usr/bin/plexusd \
	-created "$time" \
	-label org.opencontainers.image.title=plexus \
	-label org.opencontainers.image.description='The CNI meta-plugin Plexus, which gives pods more than one network' \
	-label org.opencontainers.image.version="$version" \
	-label org.opencontainers.image.revision="$commit" \
	-label org.opencontainers.image.created="$(date --date="@$time" +%Y-%m-%dT%H:%M:%SZ)" \
	-label org.opencontainers.image.source=https://github.com/plexus-cni/plexus \
	-label org.opencontainers.image.licenses=Apache-2.0 \
	"${programs[@]}")

(cd deploy/render && go run ./cmd/render -image "$image") >"$out/install.yaml"

mkdir -p bin/release/chart
cp -rL deploy/chart bin/release/chart/plexus
# The image of the release is the chart's, too.
sed -i "s|^  repository: plexus\$|  repository: ${image%:*}|" bin/release/chart/plexus/values.yaml
pack "$out/plexus-chart-$version.tgz" bin/release/chart plexus

(cd "$out" && sha256sum -- * >SHA256SUMS)
cat "$out/SHA256SUMS"

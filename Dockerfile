# Needs what `make image` builds first: static programs, by architecture. Nothing is pulled.
FROM scratch
ARG TARGETARCH
COPY bin/image/linux-${TARGETARCH}/ /usr/bin/
ENTRYPOINT ["/usr/bin/plexusd"]
CMD ["serve"]

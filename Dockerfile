# One image for `sandhold mcp` (the default) and `sandhold serve`. How to run it: deploy/README.md
#
#   docker build -t sandhold .
#
# The sandboxes of template `base` see this image's /usr, so what is installed here is what agents find.
ARG BUILD_IMAGE=docker.io/library/rust:1-bookworm
ARG RUN_IMAGE=docker.io/library/debian:stable-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo install --locked --path crates/cli --root /out

FROM ${RUN_IMAGE} AS run
# uidmap gives each sandbox user ids of its own. Its programs come set-user-id, with which the kernel refuses them in a
# container without CAP_SYS_ADMIN; with the two capabilities on their files it takes them. A base that has all of it needs no network here.
RUN set -eu; \
    missing=; \
    for package in ca-certificates curl git libcap2-bin python3 uidmap; do \
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"; \
    done; \
    if [ -n "$missing" ]; then \
        apt-get update; \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap; \
    setcap cap_setuid+ep /usr/bin/newuidmap; \
    setcap cap_setgid+ep /usr/bin/newgidmap; \
    useradd --create-home --uid 1000 --shell /usr/sbin/nologin sandhold; \
    install -d -o sandhold -g sandhold /home/sandhold/.local /home/sandhold/.local/state; \
    echo 'sandhold:100000:1048576' | tee /etc/subuid > /etc/subgid
COPY --from=build /out/bin/sandhold /out/bin/sandhold-envd /usr/local/bin/
LABEL io.modelcontextprotocol.server.name="io.github.sandhold/sandhold" \
      org.opencontainers.image.title="Sandhold" \
      org.opencontainers.image.description="Isolated sandboxes for LLM agents: an MCP server, and a server for E2B's SDKs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/sandhold/sandhold"
USER sandhold
WORKDIR /home/sandhold
ENTRYPOINT ["sandhold"]
CMD ["mcp"]

# The platform: one image, four roles. The program is built outside (scripts/compose-prepare), since
# the Rust toolchain of the base distribution is too old; no BuildKit feature is used.
FROM debian:bookworm-slim
RUN apt-get update -o APT::Update::Error-Mode=any \
 && apt-get install -y --no-install-recommends ca-certificates e2fsprogs iptables mmdebstrap \
 && rm -rf /var/lib/apt/lists/*
COPY docker/hanshu /usr/local/bin/hanshu
EXPOSE 9000 9080
ENTRYPOINT ["/usr/local/bin/hanshu"]
CMD ["serve"]

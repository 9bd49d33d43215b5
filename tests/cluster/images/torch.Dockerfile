# The trainer's base for tests: Debian's torch for CPUs, a quarter of the CUDA build's size.
# libopenblas0-pthread is not optional: without it torch falls back to the reference BLAS, and fp32 becomes unusable.
ARG BASE
FROM ${BASE}
RUN apt-get update --quiet \
    && apt-get install --quiet --yes --no-install-recommends \
         -o Dpkg::Options::=--path-exclude='/usr/share/doc/*' -o Dpkg::Options::=--path-exclude='/usr/share/man/*' \
         python3-torch libopenblas0-pthread \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*

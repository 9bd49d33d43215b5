# A base for trainer_image/Dockerfile: the locked torch for CUDA, which brings every library of CUDA but the node's driver.
#
#   docker build -f trainer_image/cuda.Dockerfile --build-arg BASE=IMAGE@sha256:… -t finetune-cuda .
#
# BASE brings python3 (3.11 or later) with pip.
ARG BASE
FROM ${BASE}
COPY requirements-torch.lock /opt/torch/
# The trainer's own environment sees what the system's python has: that is how it gets torch.
RUN python3 -m pip install --no-cache-dir --no-compile --break-system-packages --require-hashes -r /opt/torch/requirements-torch.lock \
    && python3 -m compileall -q --invalidation-mode unchecked-hash "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

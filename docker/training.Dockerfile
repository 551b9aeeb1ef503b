# Trains on GPUs. From the root of the repository:
#
#   docker build -f docker/training.Dockerfile -t bsdenoise-training .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD/scans:/data:ro" -v "$PWD/runs:/runs" \
#       bsdenoise-training /data --out /runs/first --noise gaussian:25
#
# The same command goes on where it stopped. `docker stop --time 120` lets it save before it leaves. For other commands:
# docker run … --entrypoint bsdenoise bsdenoise-training export /runs/first --out /runs/models/denoiser
ARG PYTHON_TAG=3.12-slim
FROM python:${PYTHON_TAG}

WORKDIR /opt/bsdenoise
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY bsdenoise bsdenoise
# CUDA and cuDNN come as packages of TensorFlow; the host brings the driver alone. Versions are bounded in setup.cfg.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[gpu]' \
 && useradd --uid 10001 --create-home trainer \
 && mkdir /data /runs \
 && chown trainer /runs

# Whatever user it runs as: its home must be writable, because libraries keep caches there.
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    TFDS_DATA_DIR=/data/tensorflow_datasets
USER 10001
WORKDIR /runs
VOLUME ["/runs"]

ENTRYPOINT ["bsdenoise-train"]
CMD ["--help"]

# TensorFlow-Serving with settings for images. From the root of the repository:
#
#   docker build -f docker/serving.Dockerfile -t bsdenoise-serving .
#   docker build -f docker/serving.Dockerfile -t bsdenoise-serving:gpu --build-arg SERVING_TAG=2.20.0-gpu .
#   docker run --rm -p 8500:8500 -p 8501:8501 -v "$PWD/models:/models:ro" --memory 12g bsdenoise-serving
#
# docker/serving-entrypoint.sh lists the settings; arguments after the image's name go to the server.
ARG SERVING_TAG=2.20.0
FROM tensorflow/serving:${SERVING_TAG}

# The server has no handler for SIGTERM, and the kernel keeps such signals from a container's first process: tini is
# that process and passes them on. Its version is that of the base image's distribution.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/*

COPY --chmod=0755 docker/serving-entrypoint.sh /usr/local/bin/bsdenoise-serving
COPY --chmod=0755 docker/serving-health.sh /usr/local/bin/bsdenoise-health
COPY --chmod=0644 serving/monitoring.config /etc/bsdenoise/monitoring.config

# The base image sets some of these to values of its own.
ENV MODEL_NAME=denoiser \
    MODEL_BASE_PATH=/models \
    GRPC_PORT=8500 \
    REST_PORT=8501

# The base image has no user but root; this one owns nothing.
USER 10001:10001
EXPOSE 8500 8501

# A large model on a slow disk may load for minutes.
HEALTHCHECK --interval=10s --timeout=6s --start-period=180s --retries=3 CMD ["/usr/local/bin/bsdenoise-health"]

ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/bsdenoise-serving"]
# The base image may bring a command of its own, which would become arguments of the server.
CMD []

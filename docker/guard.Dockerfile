# The guard before the REST port of a model server, without TensorFlow. From the root of the repository:
#
#   docker build -f docker/guard.Dockerfile -t bsdenoise-guard .
#   docker run --rm -p 127.0.0.1:8501:8080 bsdenoise-guard http://SERVER:8501
ARG PYTHON_TAG=3.12-slim
FROM python:${PYTHON_TAG}

WORKDIR /opt/bsdenoise
COPY setup.cfg pyproject.toml README.md LICENSE requirements-guard.txt ./
COPY bsdenoise bsdenoise
# Versions are bounded in requirements-guard.txt.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --no-deps . \
 && pip install --no-cache-dir -r requirements-guard.txt

ENV PYTHONUNBUFFERED=1
USER 10002:10002
EXPOSE 8080

ENTRYPOINT ["bsdenoise", "guard", "--host", "0.0.0.0"]
CMD ["--help"]

# The service and what it needs, on a slim Python. Nothing else: no torch, no compiler, no sources of training or export.
#   docker build -f docker/service.Dockerfile -t resnet-service .
#   docker run --rm -p 127.0.0.1:8000:8000 resnet-service        serves the shipped models, which are in the image;
#     -v "$PWD/models:/models:ro"     serves others instead: <name>/<version>/model.onnx, readable by everyone
#     -p 127.0.0.1:8001:8001          publishes /metrics; loading models there takes a key of RESNET_ADMIN_KEYS_FILE
# BASE_IMAGE is any image with Python 3.11 or newer, pip and venv; FLAVOUR is one of the extras cpu and gpu. With gpu come
# CUDA, cuDNN and TensorRT as wheels; the driver is the host's. TensorRT's wheel lies on NVIDIA's own index, which the
# package on the usual one asks: where it cannot be reached, --build-arg TENSORRT=no leaves it out.
# SIGNATURES=yes adds what --model-keys needs (19 MB). BASE_IMAGE takes a digest: python:3.11-slim@sha256:…
# With cpu, every file that is installed must have a hash of constraints/*.lock. `make image` sets VERSION and COMMIT.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ARG FLAVOUR=cpu
ARG TENSORRT=yes
ARG SIGNATURES=no
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all:
WORKDIR /build

# The dependencies come before the code, so that a change in the code leaves their layer alone.
COPY pyproject.toml ./
COPY constraints ./constraints
# hadolint ignore=DL3003
RUN python -m venv --without-pip /opt/venv \
 && if [ "${FLAVOUR}" = cpu ]; then cp constraints/service-cpu.lock requirements.txt; else python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = ['${FLAVOUR}', *['tensorrt'] * ('${FLAVOUR}${TENSORRT}' == 'gpuyes')]; \
print(*project['dependencies'], *(line for extra in extras for line in project['optional-dependencies'][extra]), sep='\n')" \
    > requirements.txt; fi \
 && if [ "${FLAVOUR}" = cpu ]; then set -- --require-hashes; else set -- --constraint "constraints/service-${FLAVOUR}.txt" --no-binary tensorrt-cu13-libs; fi \
 && python -m pip --python /opt/venv/bin/python install "$@" --requirement requirements.txt \
 && if [ "${SIGNATURES}" = yes ]; then python -m pip --python /opt/venv/bin/python install --require-hashes --requirement constraints/signatures.lock; fi \
 && cd /opt/venv/lib/python3*/site-packages \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && rm -r onnxruntime/transformers onnxruntime/quantization onnxruntime/tools

COPY README.md LICENSE THIRD-PARTY-LICENSES.md setup.py ./
COPY release/resnet-service.cdx.json ./release/
COPY service ./service
COPY models /models
ARG COMMIT=
ARG SOURCE_DATE_EPOCH=0
RUN SOURCE_COMMIT="${COMMIT}" python -m pip --python /opt/venv/bin/python install --no-deps --target /app . \
 && rm /app/bin/train-resnet /app/bin/export-onnx /app/bin/resnet-mcp \
 && chmod -R a+rX /models \
 && mkdir /cache

FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG VERSION=unknown
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="resnet-service" \
      org.opencontainers.image.description="Image classification by residual networks over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
COPY --from=build /opt/venv /opt/venv
COPY --from=build --chown=10001:10001 /cache /cache
COPY --from=build /models /models
COPY --from=build /app /app

ENV PATH=/app/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    XDG_CACHE_HOME=/cache \
    RESNET_HOST=0.0.0.0 \
    RESNET_PORT=8000 \
    RESNET_ADMIN_HOST=0.0.0.0 \
    RESNET_MODELS=/models
WORKDIR /app
USER 10001:10001
VOLUME /cache
EXPOSE 8000

# Ready means: warmed up, and the golden example was answered as the model's card says.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-I", "-c", "import http.client, os, sys; service = http.client.HTTPConnection('127.0.0.1', int(os.environ['RESNET_PORT']), timeout=4); service.request('GET', '/health/ready'); sys.exit(service.getresponse().status != 200)"]

ENTRYPOINT ["serve-resnet"]

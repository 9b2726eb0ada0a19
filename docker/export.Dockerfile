# `export-onnx` in a container, for machines without Python: published weights become a model file in ./models.
#   docker compose --profile imagenet run --rm imagenet     builds this image and runs it; see docker-compose.yml
# It has torch, so it is large; it serves nothing. BASE_IMAGE is any image with Python 3.11 or newer, pip and venv.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# The dependencies come before the code, so that a change in the code leaves their layer alone.
COPY pyproject.toml ./
COPY constraints ./constraints
# The script prints an option and its value, as two words.
# hadolint ignore=SC2046
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *(line for extra in ('cpu', 'export') for line in project['optional-dependencies'][extra]), sep='\n')" \
    > requirements.txt \
 && python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --only-binary :all: --constraint constraints/development.txt \
    $(python constraints/torch_wheels.py "${TORCH_CPU_INDEX}") --requirement requirements.txt

COPY README.md LICENSE THIRD-PARTY-LICENSES.md ./
COPY service ./service
COPY training ./training
COPY export ./export
RUN /opt/venv/bin/python -m pip install --no-deps --editable . \
 && mkdir -m 1777 /cache

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    XDG_CACHE_HOME=/cache \
    RESNET_NEXT_COMMAND="docker compose up"
# models/ is below this folder: export-onnx writes where a mount of the host's models lies.
VOLUME /cache
USER 1000:1000
ENTRYPOINT ["export-onnx"]

# Code server, run workers and step pods: one image for the CPU, one with CUDA, of the same code and the same Python.
#
#   docker build --build-arg TORCH_INDEX=<the index of PyTorch's CPU wheels> -t <image>:<commit> .
#   docker build -t <image>:<commit>-cuda .
#
# A tag can be moved: BASE_DIGEST pins the base. It is what this prints, and it belongs into your build's own settings:
#
#   docker buildx imagetools inspect python:3.11.14-slim-bookworm --format '{{.Manifest.Digest}}'
ARG BASE_DIGEST=""
FROM python:3.11.14-slim-bookworm${BASE_DIGEST:+@$BASE_DIGEST}

# Where pip takes torch from. Empty: pip's own index, whose Linux wheel brings CUDA; the node brings the driver.
ARG TORCH_INDEX=""

# no NVIDIA_VISIBLE_DEVICES: a step sees the GPUs that the device plugin has given to it, and no others
ENV DAGSTER_HOME=/opt/dagster/dagster_home \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --uid 1000 --create-home dagster \
    && mkdir -p "$DAGSTER_HOME" \
    && chown dagster:dagster "$DAGSTER_HOME"
WORKDIR /opt/batch_scoring

# torch alone, for it is most of the image. Its own dependencies come below: a wheel index of torch need not have ours
COPY constraints.txt ./
RUN pip install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"

# the dependencies without the code, so that another commit brings a layer of kilobytes
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); print(*p['build-system']['requires'], *p['project']['dependencies'], *(d for extra in ('metrics', 'postgres', 'redis', 'sql', 'text') for d in p['project']['optional-dependencies'][extra]), sep='\n')" > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt

# editable: there is one copy of the code, in the folder where every pod starts
COPY README.md LICENSE NOTICE ./
COPY batch_scoring ./batch_scoring
RUN pip install --no-deps --no-build-isolation --editable . \
    && python -m compileall -q batch_scoring

# the commit, last: it changes with every build
ARG REVISION=""
LABEL org.opencontainers.image.revision=$REVISION

EXPOSE 3030
USER 1000:1000

# no ENTRYPOINT: run and step pods bring their whole command as arguments
CMD ["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "3030", "-m", "batch_scoring.definitions"]

# docker build -t pawmatch .                       computes on the CPU
# docker build -t pawmatch --build-arg TORCH=cuda .   computes on an NVIDIA GPU; run with --gpus all
# For builds that can be repeated, name the image by its digest, which `docker buildx imagetools inspect
# python:3.12-slim` prints: --build-arg PYTHON_IMAGE=python:3.12-slim@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim
FROM ${PYTHON_IMAGE}

# User 1000 is the one that Hugging Face Spaces run containers as.
RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app
ENV PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# The large layer first: it changes when the packages do, not when the code does. Packages and code belong
# to root, so that the running service cannot change them. Of torch's own index only torch is pinned: what
# else it holds is older.
COPY requirements.txt constraints.txt ./
ARG TORCH=cpu
RUN case "$TORCH" in \
      cpu) index=https://download.pytorch.org/whl/cpu ;; \
      cuda) index=https://pypi.org/simple ;; \
      *) echo "TORCH is '$TORCH'; use cpu or cuda" >&2; exit 1 ;; \
    esac \
    && pip install --index-url "$index" $(grep -E '^torch(vision)?==' constraints.txt) \
    && pip install -r requirements.txt -c constraints.txt

# Further ones, such as those of the model tier: --build-arg "PACKAGES=ray[data,serve]>=2.60,<3"
ARG PACKAGES=
RUN if [ -n "$PACKAGES" ]; then pip install "$PACKAGES" -c constraints.txt; fi

COPY weights ./weights
COPY examples ./examples
COPY pawmatch ./pawmatch
COPY app.py ./

USER user
# Made here so that it belongs to the user, also where a volume is mounted on it.
RUN mkdir -p /home/user/.cache/huggingface
ENV HF_HOME=/home/user/.cache/huggingface \
    PAWMATCH_HOST=0.0.0.0

EXPOSE 7860
# Asks on the port that the service itself would take from its variables.
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s CMD ["python", "-c", "import os, urllib.request; from pawmatch.settings import Settings; port = Settings.from_environ(os.environ).port; urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz', timeout=8)"]
# Python as the first process ignores SIGTERM; on SIGINT the service ends at once.
STOPSIGNAL SIGINT
CMD ["python", "app.py"]

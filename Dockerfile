FROM python:3.12-slim

RUN useradd --create-home --uid 10001 app
WORKDIR /srv
COPY pyproject.toml README.md LICENSE ./
COPY tools/readme_for_pypi.py ./tools/
COPY claude_batch_tasks ./claude_batch_tasks
# The simulator and Flower are in the same image, so that compose builds one.
RUN pip install --no-cache-dir '.[simulator,flower]'
COPY celeryconfig.py ./
USER app
CMD ["celery", "-A", "claude_batch_tasks.app", "worker", "--loglevel=info"]

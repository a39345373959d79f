FROM python:3.12-slim

RUN useradd --create-home --uid 10001 app
WORKDIR /srv
COPY pyproject.toml README.md LICENSE ./
COPY tools/readme_for_pypi.py ./tools/
COPY claude_batch_tasks ./claude_batch_tasks
# The simulator, Flower and a PostgreSQL's client are in the same image, so that compose builds one.
RUN pip install --no-cache-dir '.[simulator,flower,postgres]'
COPY celeryconfig.py ./
USER app
CMD ["celery", "-A", "claude_batch_tasks.app", "worker", "--loglevel=info"]

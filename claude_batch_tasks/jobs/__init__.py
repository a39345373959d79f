"""What applications hold of a job."""

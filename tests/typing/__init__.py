"""What type checkers say of code that uses the package: lines that must pass, and lines that must not."""

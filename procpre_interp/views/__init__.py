"""What people see: figures, exhibits, reports."""

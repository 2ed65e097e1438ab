"""What people look at: the preview of rows and the dataset card."""

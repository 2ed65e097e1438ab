"""Pages and texts that people look at: the preview of rows and the dataset card."""

"""From runs to tidy data: summary and costs."""

"""What a captioner is worth: metrics, controls, and finished runs put to use."""

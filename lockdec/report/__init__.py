"""Tables, figures and the HTML report, made from result.json files alone."""

"""Days of a deployment elsewhere, over the GraphQL interface of its web server: `submit`, `status`, `wait`."""

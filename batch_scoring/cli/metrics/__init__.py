"""The subcommand `metrics`: what monitoring systems are told, over HTTP, in a file or to CloudWatch."""

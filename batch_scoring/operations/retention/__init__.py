"""What nobody needs any more: which files may go (`plan`), found and taken away (`vacuum`), as an asset (`asset`)."""

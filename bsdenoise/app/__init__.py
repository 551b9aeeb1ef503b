"""The local web page: `denoising` does the work, `views` and `words` show it, `page` and `server` serve it."""

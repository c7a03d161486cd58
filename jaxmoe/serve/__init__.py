"""An HTTP server in OpenAI's shape, on one `jaxmoe.Engine`; needs the extra `serve`."""

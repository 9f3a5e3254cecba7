"""What is seen: the only rooms that import gradio. `app.page.build.page` makes the page."""

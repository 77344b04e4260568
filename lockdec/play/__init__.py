"""The playground: a page on this machine on which finished runs and plugs caption what you give them.

__main__   the command
player     a captioner as the page shows it: what it is, examples, and answers as plain data
server     the page and its few addresses, guarded and bounded

The page is HTML, CSS and JavaScript of our own over Starlette and uvicorn, which add two packages and ask no other
server for anything; Gradio would add a dozen, wants an older Pillow, and sends reports home unless it is told not to.
"""

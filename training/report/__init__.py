"""What the runs say beside the paper: numbers, a Markdown table, and one page that needs nothing else.

`runs` reads run folders, `numbers` compares them, `sections` says in words what was found, `figures` draws it, `page`
puts it together; `published` is what others have measured.
"""

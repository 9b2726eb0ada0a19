"""The report that compares runs with the paper: numbers, a Markdown table, and one self-contained page.

`runs` reads run folders, `numbers` compares them, `sections` words the findings, `figures` draws it, `page`
puts it together; `published` is what others have measured.
"""

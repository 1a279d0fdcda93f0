"""What the tests ask of a page."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags, headings, cells of tables and text; each tag must be closed where it was opened."""

    VOID = frozenset({"meta", "img", "line", "circle"})

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.headings, self.cells, self.text = [], [], [], [], ""
        self.widths = []
        self.source = source
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
            self.widths.append(0)
        if tag in ("th", "td"):
            self.cells[-1].append("")
            self.widths[-1] += int(dict(attrs).get("colspan", 1))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "h2" in self.open:
            self.headings.append(data)
        if {"th", "td"} & set(self.open):
            self.cells[-1][-1] += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

"""What srsd does where it checks nothing, on libmilter: reference_milter.py unix:PATH AUTHSERV_ID.

Removes Authentication-Results that name the authserv-id, the lowest first, and inserts one with `none` on top.
It runs in a process of its own, since libmilter can serve only one socket in a process, and only once.
"""

import sys

import Milter

SOCKET, AUTHSERV_ID = sys.argv[1:]
NAME = "Authentication-Results"


class Reference(Milter.Base):
    """Answers every event that it is told."""

    def connect(self, _name, _family, _address):
        self.places = []
        self.seen = 0
        return Milter.CONTINUE

    def hello(self, _name):
        return Milter.CONTINUE

    def envfrom(self, _sender, *_arguments):
        self.places = []
        self.seen = 0
        return Milter.CONTINUE

    def envrcpt(self, _recipient, *_arguments):
        return Milter.CONTINUE

    def data(self):
        return Milter.CONTINUE

    def unknown(self, _command):
        return Milter.CONTINUE

    @Milter.decode("bytes")
    def header(self, name, value):
        if name.lower() == NAME.lower():
            self.seen += 1
            first = value.partition(b";")[0].split()
            if first and first[0].lower() == AUTHSERV_ID.encode():
                self.places.append(self.seen)
        return Milter.CONTINUE

    def eoh(self):
        return Milter.CONTINUE

    def body(self, _chunk):
        return Milter.CONTINUE

    def eom(self):
        for place in reversed(self.places):
            self.chgheader(NAME, place, "")
        self.addheader(NAME, f"{AUTHSERV_ID}; none", 0)
        return Milter.CONTINUE


Milter.factory = Reference
Milter.set_flags(Milter.ADDHDRS | Milter.CHGHDRS)
Milter.runmilter("reference", SOCKET, 60)

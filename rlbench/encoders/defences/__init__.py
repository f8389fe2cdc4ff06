"""Encoders behind a defence (`defended`), and planted defences by where they act: the audit must find each of them."""

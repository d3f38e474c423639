"""What a virtual machine should be: documents, the domain XML for them, and plans."""

"""How the default nucleus detector is trained: images, phantoms, augmentation, figures."""

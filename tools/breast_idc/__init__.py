"""How breast-idc-scout is trained: tiles, augmentation, tile stage, bag stage and measures."""

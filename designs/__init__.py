"""What a designer may turn: frozen parameter dataclasses, number formats, cited presets."""

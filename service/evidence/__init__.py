"""What remains of an event to look at and listen to: pictures, sound, clips, and for how long they are kept."""

"""Page on which one drops a picture and watches its race; needs the extra `app`."""

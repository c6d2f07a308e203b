# Slicer writes a package configuration and sets up CPack here; neither changes what is installed.
